"""From a training set to a judged candidate: dataset, fit, evaluation, gate."""
