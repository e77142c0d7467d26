# /// script
# dependencies = ["Pillow"]
# [tool.strongroom]
# memory = "96M"
# ///
"""Draw, filter, and go through PNG, JPEG, WebP and AVIF."""

import hashlib
import io

from PIL import Image, ImageDraw, ImageFilter, ImageFont

image = Image.new("RGB", (320, 240), "white")
draw = ImageDraw.Draw(image)
draw.ellipse((40, 40, 200, 200), fill="navy")
draw.text((100, 210), "records", fill="black", font=ImageFont.load_default(18))
image = image.filter(ImageFilter.GaussianBlur(2)).resize((160, 120), Image.Resampling.LANCZOS)
for kind in ("PNG", "JPEG", "WEBP", "AVIF"):
    out = io.BytesIO()
    image.save(out, kind)
    again = Image.open(io.BytesIO(out.getvalue()))
    print(kind, again.size, hashlib.sha256(again.convert("RGB").tobytes()).hexdigest()[:16])
