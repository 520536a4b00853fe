"""How parameters change: schedules, masks, optimizers, averages."""
