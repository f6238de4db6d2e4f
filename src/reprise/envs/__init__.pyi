from .fisheries import Fishery as Fishery, FisheryEnv as FisheryEnv, FisheryVectorEnv as FisheryVectorEnv
