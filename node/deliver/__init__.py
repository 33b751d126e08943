"""Stage 5: results leave; a receipt is the proof."""
