def test_smoke(atlas):
    hits = atlas.search("red edge", k=5)
    print(hits.table.to_pandas() if 0 else hits.table.schema, hits.plan)
    print([int(i[-4:]) for i in hits.ids], [h.score for h in hits])
    for w in ("blue ring", "white round", "green face"):
        hits = atlas.search(w, k=75)
        print(w, [int(i[-4:])%4 for i in hits.ids])
