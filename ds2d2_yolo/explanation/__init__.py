"""What distillation sees of an image, as arrays. Knows no pictures, no pages."""
