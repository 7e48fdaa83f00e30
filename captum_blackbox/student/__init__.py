"""METHOD 1: a black box, a student that imitates it, and the sum of the student's Grad-CAMs."""
