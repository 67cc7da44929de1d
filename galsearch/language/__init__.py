"""What words say: sentences read into wants, cuts and rewordings; what texts deny; phrases compared with vectors.

Words in, plain data out; vectors in, numpy out. No engine: whoever calls brings the columns, the phrases and a function
that embeds words. Names are imported from the module that has them, so that whoever needs one rule loads no other.
"""
