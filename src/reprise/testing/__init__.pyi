from .attribution import (
    check_attribution as check_attribution,
    toy_dense_head as toy_dense_head,
    toy_pooled_head as toy_pooled_head,
)
from .policy import check_policy as check_policy
from .worlds import Countdown as Countdown, Match as Match
