"""What most people write first: FastAPI, sentence-transformers and hnswlib, a request at a time in a thread."""

import os

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer

from benchmarks.peers.pipeline import open_pipeline

app = FastAPI()
pipeline = open_pipeline()
model = SentenceTransformer(os.environ["PEER_CHECKPOINT"], device="cpu")


class RetrieveRequest(BaseModel):
    """The query; other fields are ignored."""

    query: str


@app.post("/retrieve")
def retrieve(request: RetrieveRequest) -> dict[str, list[str]]:
    """Encode and search."""
    return {"ad_ids": pipeline.search(model.encode([request.query], normalize_embeddings=True))[0]}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PEER_PORT"]), log_level="warning")
