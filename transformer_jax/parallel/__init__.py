"""The only code that knows devices: meshes, rules from logical axes to shardings, strategies."""
