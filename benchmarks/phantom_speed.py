"""Phantom films of 512 x 256 per second on one core, by anatomy and preset: python benchmarks/phantom_speed.py"""

import time

import cv2

from vertebra_kp.core.anatomy import SCHEMAS
from vertebra_kp.data.phantom import ANATOMIES, PRESETS, draw_film

SIZE, FILMS = (512, 256), 40


def main() -> None:
    cv2.setNumThreads(1)
    print("| anatomy | preset | films a second |\n|---|---|---|")
    for schema in (SCHEMAS[name] for name in ANATOMIES):
        for preset in PRESETS:
            draw_film(schema, preset, 0, 0, SIZE)  # textures are made at the first film
            started = time.perf_counter()
            for index in range(FILMS):
                draw_film(schema, preset, 0, index, SIZE)
            print(f"| {schema.name} | {preset} | {FILMS / (time.perf_counter() - started):.0f} |")


if __name__ == "__main__":
    main()
