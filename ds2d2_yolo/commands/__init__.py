"""The commands: parse words, make one call, print lines. They know every other room. Python users do not need them."""
