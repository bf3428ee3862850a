"""The commands: parse words, make one call, print lines. May use every other room; Python users do not need it."""
