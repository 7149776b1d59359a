"""Prints what MediaPipe Tasks make of a file: JSON, for test_mediapipe.py.

    python mediapipe_scores.py classify|embed FILE PICTURES.npy

PICTURES hold uint8 `(n, height, width, 3)`. For each a list of `[label,
score]`, the best first, or of the numbers of the embedding.
"""

import json
import sys

import mediapipe
import numpy as np
from mediapipe.tasks.python import BaseOptions
from mediapipe.tasks.python import vision


def main(task, path, pictures):
    """Runs one task on each picture."""
    base = BaseOptions(model_asset_path=path)
    results = []
    if task == "classify":
        options = vision.ImageClassifierOptions(base_options=base)
        made = vision.ImageClassifier.create_from_options(options)
    else:
        options = vision.ImageEmbedderOptions(base_options=base)
        made = vision.ImageEmbedder.create_from_options(options)
    with made as client:
        for picture in np.load(pictures):
            image = mediapipe.Image(
                image_format=mediapipe.ImageFormat.SRGB, data=picture
            )
            if task == "classify":
                (head,) = client.classify(image).classifications
                results.append(
                    [[c.category_name, c.score] for c in head.categories]
                )
            else:
                (head,) = client.embed(image).embeddings
                results.append(np.asarray(head.embedding).tolist())
    print(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
