"""Galaxies in: question trees and votes, images, surveys, loaders."""
