"""Process start to the first embedding: first of embed.go, in Python.

Requirements: torch 2.15.0, transformers 5.23.0
"""

import json
import sys

from minilm import MiniLM

if __name__ == "__main__":
    print(json.dumps({"check": MiniLM(sys.argv[1]).embed(["The first sentence."])[0].tolist()}))
