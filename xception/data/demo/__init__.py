"""The embedded photos: ten kinds of clothing, CC0; their credit is in README.md beside this."""

from pathlib import Path

#: 1,200 photos of 96 × 96 pixels, split into 800 / 186 / 214.
DEMO_PHOTOS: Path = Path(__file__).with_name("clothing96.zip")
