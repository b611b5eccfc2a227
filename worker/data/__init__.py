"""Prepare a data set: `python -m worker.data PREPARE_DIR [--stop-fd N] [--processes N]`.

PREPARE_DIR/prepare.json, in:

    {"source": {"kind": "archive", "path": "/abs/upload.zip"} or {"kind": "builtin", "name": "digits"},
     "options": {"resolution": int or null, "fit": "crop" | "pad" | "stretch"},      (null and crop where left out)
     "limits": {"members", "total_bytes", "member_bytes", "ratio", "pixels", "prepared_bytes"}}    (members.Limits where left out)

Out, all at once at the end:

    examples.npy    uint8 [N, H, W, C], ordered by class and then path, both naturally; those without a label come first
    labels.npy      int64 [N], indices into the classes; -1 for no label, throughout when there are no classes
    features.safetensors    a small classifier, whose features samples are compared in (see worker.data.features); optional
    dataset.json    {"examples", "height", "width", "channels", "classes": [{"name", "count"}], "sha256",
                     "unlabelled": how many beside labelled ones have no label, 0 when none has one,
                     "features": {"accuracy", "baseline" (of always naming the largest class), "held_out" (examples that both are of),
                     "dim", "sha256"} (with the file), "report": {
                     "skipped": [{"file", "reason"}] (100 at most), "skipped_total", "ignored" (clutter such as .DS_Store),
                     "duplicates", "sizes": [{"width", "height", "count"}] (the 50 most frequent), "conversions": {name: count},
                     "features": why there is no classifier (without the file)}}
    events.jsonl    appended: "progress" {"done", "total"} in images, of which each counts in equal parts for its header, its pixels
                    and the classifier if there is to be one, at least once a second; last one of "finished",
                    "failed" {"code", "message"}, "stopped"

Exit status 0 after finished or stopped, 1 after failed, with the message on stderr too. Stops on SIGTERM, SIGINT and
when the pipe on --stop-fd closes.

The rules stand in the modules beside this: `layout` says which images are used and how they are labelled, `images` how each becomes an
example, `plan` which shape they all get, `archives` and `arrays` what can be read. Images that cannot be decoded are left out and
listed; more than a tenth of them fail the preparation. `sha256` is over shape, classes, examples and labels, and not over the classifier. Memory does not grow
with the number of images but for 17 bytes each: label, digest (for counting duplicates) and whether it is sound.
"""

PREPARED_FILES = ("examples.npy", "labels.npy", "dataset.json")  # the last one says that the others are complete
FEATURES_FILE = "features.safetensors"  # beside them; what was prepared without it is as good
