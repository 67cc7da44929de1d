"""Knowledge bases: labeled objects of an atlas that vote on others, by their distance in an embedding."""

from galsearch.knowledge.bases import create_base, drop_base
from galsearch.knowledge.members import KnowledgeBase

__all__ = ["KnowledgeBase", "create_base", "drop_base"]
