#!/bin/sh
# Says hello as an init does (its kind, then the version of the protocol), then nonsense, and takes its time to end.
printf '\001\001\000\000\000' >&0
printf 'nonsense' >&0
sleep 1
