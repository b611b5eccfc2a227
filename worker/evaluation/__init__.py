"""How samples are measured against the data they were learned from, in the features of one network."""
