"""MNIST-1D with a two-layer perceptron."""


def get_config():
    return {
        "data": {"source": "mnist1d"},
        "model": {"name": "mlp", "dropout_rate": 0.3},
        "optim": {"name": "adamw", "learning_rate": 2e-3, "schedule": {"name": "cosine"}},
        "train": {"epochs": 20},
    }
