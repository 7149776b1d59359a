"""The flags of each command: `name: (default, what it is)`.

A flag without a default has the type of its value instead.
"""

JSON = {"json": (False, "print the report as JSON")}
OUTPUT = {"overwrite": (False, "replace what exists"), **JSON}
RUN = {"resume": (False, "go on with the run in --output_dir"), **OUTPUT}
DATA = {
    "data_dir": (
        str,
        "folder with train/ and val/, or of class folders, of which a part "
        "validates; with --dataset, where tensorflow-datasets keeps its data",
    ),
    "dataset": (str, "'digits' (built in) or a name of tensorflow-datasets"),
    "download": (False, "let tensorflow-datasets download"),
    "batch_size": (32, "pictures in a batch"),
    "seed": (0, "what all chance depends on, the split into train and val too"),
}
TRAIN = {
    **DATA,
    "image_size": (256, "side of the pictures in pixels"),
    "model": ("MobileViT_XXS", "MobileViT_S, MobileViTV2_100, ..."),
    "weights": ("none", "'none', 'imagenet' or a weights file"),
    "epochs": (20, "passes over the training pictures"),
    "freeze_epochs": (0, "the first epochs, in which only the head learns"),
    "learning_rate": (2e-3, "highest learning rate"),
    "label_smoothing": (0.1, "probability that is spread over all classes"),
    "weight_decay": (0.01, "of the optimizer, AdamW"),
    "output_dir": ("run", "folder for the results"),
    **RUN,
}
QUANTIZE = {
    **DATA,
    "epochs": (int, "passes over the training pictures; by default 4"),
    "learning_rate": (float, "highest learning rate; by default 1e-5"),
    "precision": ("int8", "int8 or int8_mixed"),
    "distill": (True, "learn the float model's outputs, not the labels"),
    "freeze_batch_norm": (True, "keep the batch statistics as they are"),
    "output_dir": ("quantized", "folder for the results"),
    **RUN,
}
CONVERT = {
    **DATA,
    "target": ("cpu", "cpu, gpu or edgetpu"),
    "precision": (
        str,
        "float32, float16, dynamic_int8, int16x8, int8_mixed or int8; by "
        "default what suits the target",
    ),
    "input_dtype": (str, "uint8, int8 or float32; by default by precision"),
    "image_size": (int, "side of the pictures; by default that of the model"),
    "sizes": (
        str,
        "several sides, 160,192,224: a file of each, compared by time, and "
        "by accuracy if there are pictures",
    ),
    "labels": (str, "a class a line; by default labels.txt beside the model"),
    "max_drop": (
        float,
        "points of top-1 that int8 or int8_mixed may lose on the validation "
        "pictures: the fewest layers that this asks for stay float",
    ),
    "min_sqnr": (float, "the same by signal to noise: dB against the model"),
    "split": (False, "also write the part that an Edge TPU runs, and the rest"),
    "model_card": (str, "Markdown file that says what the file is; measured"),
    **OUTPUT,
}
INSPECT = {"target": (str, "cpu, gpu, edgetpu, ...: what it runs"), **JSON}
EVALUATE = {
    **DATA,
    "threads": (int, "CPU threads; by default all cores"),
    **JSON,
}
BENCHMARK = {
    "threads": (list, "CPU threads, repeatable; by default 1 and all cores"),
    "runs": (50, "how often each file is timed"),
    "profile": (False, "show too which layers and kernels take the time"),
    "plot": (str, "PNG file to draw"),
    **OUTPUT,
}
PREDICT = {"top": (5, "classes to print"), **JSON}
SERVE_DEMO = {
    "port": (8000, "of this machine; 0 for one that is free"),
    "serve": (True, "--noserve only writes --output_dir"),
    "output_dir": (str, "where to keep the page; by default it is not kept"),
    "runtime": (
        str,
        "folder node_modules with LiteRT.js; by default npm fetches it, once",
    ),
    **OUTPUT,
}
