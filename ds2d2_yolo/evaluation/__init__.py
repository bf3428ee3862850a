"""Numbers about models on data: AP, agreement of two. Knows no training, no pictures."""
