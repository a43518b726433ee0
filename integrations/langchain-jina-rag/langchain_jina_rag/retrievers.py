"""Page retriever that uses late interaction."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.messages.content import ContentBlock
from langchain_core.retrievers import BaseRetriever, LangSmithRetrieverParams
from langchain_core.runnables import RunnableConfig
from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    SecretStr,
    model_validator,
)

from jina_rag import DocumentIndex
from jina_rag.adapters import (
    EmbedderSource,
    IndexOpening,
    IndexOwner,
    LazyIndex,
    RerankerSource,
    coroutine_of,
    page_filter,
    search_arguments,
)
from langchain_jina_rag._documents import hit_id, hit_to_document
from langchain_jina_rag._search_fields import Filter, Stages, filter_to_json, stages_from_json, stages_to_json
from langchain_jina_rag.content_blocks import content_blocks
from langchain_jina_rag.document_compressors import JinaLocalRerank
from langchain_jina_rag.embeddings import ImageInput, JinaLocalEmbeddings

if TYPE_CHECKING:
    Location: TypeAlias = str | Path | DocumentIndex
    EmbedderField: TypeAlias = EmbedderSource | JinaLocalEmbeddings | None
    RerankerField: TypeAlias = RerankerSource | JinaLocalRerank | None
else:

    def _model_field(adapter: type) -> Any:  # noqa: ANN401
        """Return the pydantic type of a field that accepts a model name, a loaded model or an `adapter`."""

        def name_or_adapter(value: Any) -> Any:  # noqa: ANN401
            if isinstance(value, Path):
                return str(value)
            return value if value is None or isinstance(value, str | dict | adapter) else adapter(model=value)

        return Annotated[str | adapter | None, BeforeValidator(name_or_adapter)]

    Location = str | Path
    EmbedderField = _model_field(JinaLocalEmbeddings)
    RerankerField = _model_field(JinaLocalRerank)

GroupBy: TypeAlias = Literal["page", "document"]


class JinaPageRetriever(IndexOwner, BaseRetriever):
    """Page retriever for PDFs, office files and images, which finds pages by text, charts, tables and handwriting.

    Late interaction compares the query with every token of a page, instead of with one vector per page. The returned
    documents are pages with the text, the source and the path of the page image, which a vision chat model can read.

    Setup:
        .. code-block:: bash

            pip install ".[langchain]"            # in a clone of jina_rag
            jina-rag ingest docs/ --index kb/      # or DocumentIndex.ingest, in Python

    Instantiate:
        .. code-block:: python

            from langchain_jina_rag import JinaPageRetriever

            retriever = JinaPageRetriever(index="kb/", k=5)

        `index` can also be the URL of a collection on a Qdrant server, or a `jina_rag.DocumentIndex`.

    Use:
        Every search setting is a field of the retriever, and can be overridden by an argument of `invoke`.

        .. code-block:: python

            docs = retriever.invoke("Which region grew fastest?")
            docs = retriever.invoke("Which region grew fastest?", k=3, filter={"path": "reports/*.pdf"})
            docs[0].metadata["source"], docs[0].metadata["page"], docs[0].metadata["image"]

        Search with an image:

        .. code-block:: python

            docs = retriever.invoke_image("chart.png")

        Build a message for a chat model from the pages; long texts are cut around the answer:

        .. code-block:: python

            from langchain_core.messages import HumanMessage

            query = "Which region grew fastest?"
            message = HumanMessage(content_blocks=retriever.context(query, retriever.invoke(query)))

    Async:
        .. code-block:: python

            docs = await retriever.ainvoke("Which region grew fastest?")

    Metadata of a document: ``source`` (path of the file), ``page`` (from 0), ``total_pages``, ``doc_id``, ``score``,
    ``stage`` (search stage of the score), ``snippet``, ``image`` (path of the page screenshot), ``region`` (kind, box,
    caption and image of the best chart, table or figure), and the metadata passed at ingestion.

    The index is opened at first use and shared with other users of the index in the process. `close` or the end of a
    ``with`` block closes the index. If an open index was passed, the index stays open.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    index: Location
    """Folder of an index, URL of a collection (``"http://host:6333/collection"``), or an open index."""
    k: int = Field(default=5, ge=1)
    """Maximum number of returned pages."""
    filter: Filter = None
    """Conditions on pages by key: ``source`` or ``path`` (a file or a glob), ``page`` (from 0), ``doc_id``, ``has``
    (``"chart"``, ``"table"`` or ``"figure"``), or a metadata key. Each key maps to a value, several values or a
    `jina_rag.Range`."""
    stages: Stages = None
    """One or several of `jina_rag.Prefetch`, `Rescore` and `Rerank`; None for the stages of the index."""
    group_by: GroupBy = "page"
    """``"page"`` returns all matching pages; ``"document"`` returns only the best page of each document."""
    dedup: bool = False
    """Whether near-duplicate pages are folded into one document."""
    score_threshold: float | None = None
    """Minimum score; pages with a lower score are dropped. None keeps all pages."""
    embedder: EmbedderField = None
    """Name, folder or object of the embedder; None for the embedder of the index. To set `device` or `dtype`, pass a
    `JinaLocalEmbeddings`."""
    reranker: RerankerField = None
    """Name, folder or object of a model that reranks the best pages; None for no reranking. To set
    `device` or `dtype`, pass a `JinaLocalRerank`. Only the model of the `JinaLocalRerank` is used, not ``top_n`` or
    ``calibration``."""
    assets_dir: str | None = None
    """For a server: folder of the page images and the manifest; None for a folder in the user's data directory."""
    api_key: SecretStr | None = Field(default=None, exclude=True, repr=False)
    """API key of a server; None for the environment variable QDRANT_API_KEY. Excluded from dumps, reprs and pickles."""

    _index: LazyIndex = PrivateAttr(default_factory=LazyIndex)

    @model_validator(mode="wrap")
    @classmethod
    def _store_index(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:  # noqa: ANN401
        """Store an open index outside of the fields, and store the location of the index in the field `index`."""
        if not isinstance(data, dict) or not isinstance(data.get("index"), str | Path | DocumentIndex):
            return handler(data)
        options = {name: data.get(name) for name in ("embedder", "reranker", "assets_dir", "api_key")}
        opening, lazy_index = LazyIndex.of(data["index"], **options)
        location = data["index"] if lazy_index.external is None else opening.location
        retriever = handler({**data, "index": os.fspath(location)})
        retriever._index = lazy_index
        return retriever

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Return True, because the fields define the retriever completely."""
        return True

    @property
    def lc_secrets(self) -> dict[str, str]:
        """Field → environment variable from which the API key is read when a serialized retriever is loaded."""
        return {"api_key": "QDRANT_API_KEY"}

    @property
    def lc_attributes(self) -> dict[str, Any]:
        """The fields `stages` and `filter` as JSON values."""
        attributes = {"filter": filter_to_json(self.filter), "stages": stages_to_json(self.stages)}
        return {name: value for name, value in attributes.items() if value is not None}

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        # The pickle excludes the API key, which would be plain text, and contains the names of rerankers in stages.
        stages = stages_from_json(stages_to_json(self.stages))
        return {**state, "__dict__": {**state["__dict__"], "api_key": None, "stages": stages}}

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        image: ImageInput | None = None,
        **settings: Any,  # noqa: ANN401  # search settings
    ) -> list[Document]:
        hits = self._index.get(self._opening).search(_query(query, image), **self._arguments(settings))
        return [hit_to_document(hit) for hit in hits]

    _aget_relevant_documents = coroutine_of(_get_relevant_documents)  # type: ignore[arg-type]  # takes either run manager

    def invoke_image(self, image: ImageInput, config: RunnableConfig | None = None, **settings: Any) -> list[Document]:  # noqa: ANN401
        """Return the best pages for a query image.

        ``invoke("What is that part?", image=…)`` combines text and image. A text model reads the image by OCR.

        Args:
            image: A path, the bytes of a file, a PIL image or a base64 data URI.
            config: Configuration of the run.
            settings: Search settings, for example ``k`` and ``filter``.
        """
        return self.invoke("", config, image=image, **settings)

    async def ainvoke_image(
        self,
        image: ImageInput,
        config: RunnableConfig | None = None,
        **settings: Any,  # noqa: ANN401
    ) -> list[Document]:
        """Return the best pages for a query image, as a coroutine (see `invoke_image`).

        Args:
            image: A path, the bytes of a file, a PIL image or a base64 data URI.
            config: Configuration of the run.
            settings: Search settings, for example ``k`` and ``filter``.
        """
        return await self.ainvoke("", config, image=image, **settings)

    def context(self, query: str, documents: list[Document], **options: Any) -> list[ContentBlock]:  # noqa: ANN401
        """Return the content blocks that a vision chat model needs to answer from pages of this index.

        In contrast to `documents_to_content_blocks`, this method locates the answer on each page with the index: long
        texts are cut around the answer, and ``prefer="region"`` sends the cited box.

        Args:
            query: Query of the search; appended at the end.
            documents: Documents returned by this retriever. Documents that are no longer in the index are skipped.
            options: Arguments of `jina_rag.DocumentIndex.build_context`, for example ``max_images``, ``max_tokens`` and
                ``prefer``.
        """
        index = self._index.get(self._opening)
        pages = {hit_id(hit): hit for hit in index.get([doc.id for doc in documents if doc.id])}
        hits = [
            replace(pages[doc.id], snippet=str(doc.metadata.get("snippet") or ""))
            for doc in documents
            if doc.id in pages
        ]
        return content_blocks(index.build_context(query, hits, **options).blocks())

    acontext = coroutine_of(context)  # type: ignore[arg-type]  # mypy wants `self` to be positional-only

    def _arguments(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of `DocumentIndex.search`; `settings` override the fields of the retriever."""
        names = ("k", "filter", "stages", "group_by", "dedup", "score_threshold")
        arguments = search_arguments({**{name: getattr(self, name) for name in names}, **settings})
        return arguments | {"filter": page_filter(arguments["filter"])}

    def _get_ls_params(self, **kwargs: Any) -> LangSmithRetrieverParams:  # noqa: ANN401
        """Return the LangSmith tracing parameters."""
        params = super()._get_ls_params(**kwargs)
        params["ls_vector_store_provider"] = "jina_rag"
        params["ls_embedding_provider"] = "jina_rag"
        model = self.embedder.model if isinstance(self.embedder, JinaLocalEmbeddings) else self.embedder
        if model is not None:
            params["ls_embedding_model"] = str(model)
        return params

    @property
    def _opening(self) -> IndexOpening:
        return IndexOpening(
            str(self.index), self.embedder, self.reranker, assets_dir=self.assets_dir, api_key=self.api_key
        )


def _query(text: str, image: ImageInput | None) -> Any:  # noqa: ANN401  # an input of jina_rag
    """Return the query for a text, an image, or a text and an image."""
    if image is None:
        return text
    return [text, {"image": image}] if text else {"image": image}
