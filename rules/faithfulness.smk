# Needs: a model's test images, the classifiers that were trained on radiographs alone, CXAS.
# Makes: results/faithfulness/: does an image show what its prompt asks for? Findings as judges see
# them, anatomy, texture and topology.
