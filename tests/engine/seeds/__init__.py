"""Tests of engine/seeds."""
