"""What distillation decides before any framework is asked: who teaches, which simple students there are, who wins."""
