from . import bags as bags, episodes as episodes, images as images, prices as prices, processes as processes
from .bags import Bags as Bags, bit_pattern_bags as bit_pattern_bags, digit_bags as digit_bags
from .crops import center_crop as center_crop, random_crop as random_crop, random_shift as random_shift
from .episodes import Episodes as Episodes
from .finite import all_finite as all_finite
from .hindsight import HindsightRows as HindsightRows, HindsightWindows as HindsightWindows
from .images import ImageData as ImageData, Images as Images
from .lerobot import read_lerobot as read_lerobot, write_lerobot as write_lerobot
from .normalize import Normalizer as Normalizer
from .prices import PriceSeries as PriceSeries
from .processes import simulate as simulate
from .scenes import Scenes as Scenes, two_object_scenes as two_object_scenes
from .shifts import appearance_shift as appearance_shift
from .store import DataMissing as DataMissing
from .text import HashedWords as HashedWords, fill_templates as fill_templates
from .windows import Windows as Windows
