"""Adversarial training as a plain local program: `python -m worker.trainer RUN_DIR [--stop-fd N]`.

    RUN_DIR/run.json        in   {"config": TrainingConfig, "data": folder of a prepared data set, "initial"?: folder of a model to
                                 start from, "inception_weights"?: file}
            checkpoints/    in and out, see worker/trainer/checkpoint.py; training goes on from the newest whole one
            grids/          out  <examples_seen:012d>.png, the fixed-seed pictures of progress
            events.jsonl    out  append-only, one object a line: {"kind", "examples_seen", "elapsed_seconds", "data"}

Events: started, metrics, evaluation, grid, checkpoint, warning, verdict, log; and last one of finished (the budget is used up, the newest
checkpoint is the result), stopped (asked to, by SIGTERM, SIGINT or the end of the pipe at --stop-fd) and failed {"code",
"message"}. The exit status is 0 after finished and stopped, else 1.
"""
