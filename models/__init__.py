"""Entity encoder, knowledge fusion, training stages and serving."""
