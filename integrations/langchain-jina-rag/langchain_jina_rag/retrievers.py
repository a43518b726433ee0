"""Pages found by late interaction, as a retriever."""

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
from langchain_jina_rag._documents import id_of, page_document
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
        """The field of a model: its name, or the adapter around a loaded one."""

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
    """Finds pages of PDFs, office files and images by what is on them: text, charts, tables, handwriting.

    The question is compared with each place of a page (late interaction), not with one vector of the whole. The
    documents it returns are pages: their words, their source, and the path of their picture for a chat model that sees.

    Setup:
        .. code-block:: bash

            pip install ".[langchain]"            # in a clone of jina_rag
            jina-rag ingest docs/ --index kb/      # or DocumentIndex.ingest, in Python

    Instantiate:
        .. code-block:: python

            from langchain_jina_rag import JinaPageRetriever

            retriever = JinaPageRetriever(index="kb/", k=5)

        `index` may also be the address of a collection on a Qdrant server, or a `jina_rag.DocumentIndex`.

    Use:
        Every setting of a search is a field, and an argument of a call.

        .. code-block:: python

            docs = retriever.invoke("Which region grew fastest?")
            docs = retriever.invoke("Which region grew fastest?", k=3, filter={"path": "reports/*.pdf"})
            docs[0].metadata["source"], docs[0].metadata["page"], docs[0].metadata["image"]

        An image may be asked with:

        .. code-block:: python

            docs = retriever.invoke_image("chart.png")

        What a chat model is given of the pages, with the place of the answer in each:

        .. code-block:: python

            from langchain_core.messages import HumanMessage

            question = "Which region grew fastest?"
            message = HumanMessage(content_blocks=retriever.context(question, retriever.invoke(question)))

    Async:
        .. code-block:: python

            docs = await retriever.ainvoke("Which region grew fastest?")

    Metadata of a document: ``source`` (the file), ``page`` (from 0), ``total_pages``, ``doc_id``, ``score`` and
    ``stage`` (which gave the score), ``snippet``, ``image`` (path of the screenshot), ``region`` (the chart, table or
    figure that answers best: kind, box, caption, image), and what was given for the document at ingestion.

    The index is opened at its first use and shared with whatever else in the process has it open. `close` releases it;
    so does leaving a ``with`` block. An index that was given as an object is left open.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    index: Location
    """Folder of an index, address of a collection (``"http://host:6333/collection"``), or an open index."""
    k: int = Field(default=5, ge=1)
    """How many pages to return at most."""
    filter: Filter = None
    """Conditions on the metadata of pages: ``source`` or ``path`` (a file, or a glob), ``page`` (from 0), ``doc_id``,
    or a key that was given at ingestion; and ``has`` (``"chart"``, ``"table"``, ``"figure"``). Key → a value, several
    values, or a `jina_rag.Range`."""
    stages: Stages = None
    """`jina_rag.Prefetch`, `Rescore`, `Rerank`, one or several, in the place of the index's own."""
    group_by: GroupBy = "page"
    """``"document"`` for the best page of each document only."""
    dedup: bool = False
    """Whether pages that show nearly the same are returned once."""
    score_threshold: float | None = None
    """Pages of a lower score are left out."""
    embedder: EmbedderField = None
    """Name, folder or object of the model; None for the one that the index was built with. For other settings of a
    model (`device`, `dtype`): a `JinaLocalEmbeddings`."""
    reranker: RerankerField = None
    """Name, folder or object of a model that judges the best pages; None for none. For other settings of a model: a
    `JinaLocalRerank`, of which the model is used."""
    assets_dir: str | None = None
    """With a server: folder of the pages' images."""
    api_key: SecretStr | None = Field(default=None, exclude=True, repr=False)
    """With a server; None for the environment variable QDRANT_API_KEY. It is in no dump, repr or pickle."""

    _index: LazyIndex = PrivateAttr(default_factory=LazyIndex)

    @model_validator(mode="wrap")
    @classmethod
    def _keep_index(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:  # noqa: ANN401
        """Keep an open index beside the fields, and its location in them."""
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
        """Its fields say all."""
        return True

    @property
    def lc_secrets(self) -> dict[str, str]:
        """The key's name where it is looked up when this is loaded."""
        return {"api_key": "QDRANT_API_KEY"}

    @property
    def lc_attributes(self) -> dict[str, Any]:
        """What is no JSON value as it is kept."""
        attributes = {"filter": filter_to_json(self.filter), "stages": stages_to_json(self.stages)}
        return {name: value for name, value in attributes.items() if value is not None}

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        # Without the key, which a pickle would hold in plain text; a reranker in a stage goes by its name.
        stages = stages_from_json(stages_to_json(self.stages))
        return {**state, "__dict__": {**state["__dict__"], "api_key": None, "stages": stages}}

    # -- searching -----------------------------------------------------------------------------------------

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        image: ImageInput | None = None,
        **settings: Any,  # noqa: ANN401  # those of a search
    ) -> list[Document]:
        hits = self._index.get(self._opening).search(_query(query, image), **self._arguments(settings))
        return [page_document(hit) for hit in hits]

    _aget_relevant_documents = coroutine_of(_get_relevant_documents)  # type: ignore[arg-type]  # takes either run manager

    def invoke_image(self, image: ImageInput, config: RunnableConfig | None = None, **settings: Any) -> list[Document]:  # noqa: ANN401
        """Pages that show what an image shows: a path, the bytes of a file, PIL, or a base64 data URI.

        ``invoke("What is that part?", image=…)`` asks with words and an image. A model that reads words reads the
        image by OCR.
        """
        return self.invoke("", config, image=image, **settings)

    async def ainvoke_image(
        self,
        image: ImageInput,
        config: RunnableConfig | None = None,
        **settings: Any,  # noqa: ANN401
    ) -> list[Document]:
        """As `invoke_image`, for event loops."""
        return await self.ainvoke("", config, image=image, **settings)

    def context(self, query: str, documents: list[Document], **options: Any) -> list[ContentBlock]:  # noqa: ANN401
        """What a vision chat model needs to answer from pages of this index, as content blocks for a message.

        As `documents_to_content_blocks`, but the index is asked where on each page the answer stands: long texts are
        cut around it, and ``prefer="region"`` shows this place.

        Args:
            query: As it was asked; its words stand at the end.
            documents: As this retriever returned them; those that are not in the index any more are left out.
            options: Those of `jina_rag.DocumentIndex.build_context`: ``max_images``, ``max_tokens``, ``prefer``, ….
        """
        index = self._index.get(self._opening)
        pages = {id_of(hit): hit for hit in index.get([doc.id for doc in documents if doc.id])}
        hits = [
            replace(pages[doc.id], snippet=str(doc.metadata.get("snippet") or ""))
            for doc in documents
            if doc.id in pages
        ]
        return content_blocks(index.build_context(query, hits, **options).blocks())

    acontext = coroutine_of(context)  # type: ignore[arg-type]  # mypy wants `self` to be positional-only

    def _arguments(self, settings: dict[str, Any]) -> dict[str, Any]:
        """The arguments of one search: the settings of the call before the fields."""
        names = ("k", "filter", "stages", "group_by", "dedup", "score_threshold")
        arguments = search_arguments({**{name: getattr(self, name) for name in names}, **settings})
        return arguments | {"filter": page_filter(arguments["filter"])}

    def _get_ls_params(self, **kwargs: Any) -> LangSmithRetrieverParams:  # noqa: ANN401
        """What a trace tells about the search."""
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
    """A query of words, of an image, or of both."""
    if image is None:
        return text
    return [text, {"image": image}] if text else {"image": image}
