"""The composition root: a resolved experiment becomes data, model, optimizer, step and evaluators."""
