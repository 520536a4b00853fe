"""What stands around training: doctor, bench, inspection, prediction."""
