"""What a config would need, and how fast it would go, as a plain local program: `python -m worker.probe DIR [--stop-fd N]`.

    DIR/probe.json          in   {"config": TrainingConfig, "data": DataSpec}
        events.jsonl        out  its last line is finished {"parameters": {"generator", "discriminator"}, "memory_bytes",
                                 "examples_per_second", "fingerprint"}, stopped, or failed {"code", "message"}

It runs a few seconds of the real training on noise of the data's shape, and leaves nothing else behind.
"""
