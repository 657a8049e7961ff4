"""From the bytes of an image file to what the tower reads and the prompt counts."""

from PIL import Image

from hybrid.vision.media import Media
from hybrid.vision.media_config import MediaConfig
from hybrid.vision.patches import item_of, patches
from hybrid.vision.picture import open_picture
from hybrid.vision.resize import fit


def image_media(source: bytes | Image.Image, config: MediaConfig, name: str = "image") -> Media:
    """Return an image file or a PIL image as Media; raises RequestError in one line."""
    picture = open_picture(source, name)
    fitted = fit(picture.width, picture.height, config.in_patch_limit, config)
    item = item_of([patches(picture, fitted, config)], fitted)
    return Media("image", name, picture.width, picture.height, (item,))
