from . import images as images
from .images import ImageData as ImageData, Images as Images
from .store import DataMissing as DataMissing
