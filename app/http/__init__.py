"""What every route has in common: who may call, what comes in, what goes out, what an error looks like."""
