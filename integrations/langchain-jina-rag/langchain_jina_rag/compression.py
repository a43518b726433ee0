"""Retriever that combines a base retriever and a document compressor."""

from __future__ import annotations

from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.retrievers import BaseRetriever, RetrieverLike
from pydantic import ConfigDict, SerializeAsAny


class JinaCompressionRetriever(BaseRetriever):
    """Retriever that filters or reranks the documents of a base retriever with a document compressor.

    The retriever returns the documents that `ContextualCompressionRetriever` of ``langchain_classic`` would return, and
    requires only langchain-core.

    Setup:
        .. code-block:: bash

            pip install ".[langchain]"            # in a clone of jina_rag

    Instantiate:
        .. code-block:: python

            from langchain_jina_rag import JinaCompressionRetriever, JinaLocalRerank, JinaPageRetriever

            retriever = JinaCompressionRetriever(
                base_retriever=JinaPageRetriever(index="kb/", k=20),
                base_compressor=JinaLocalRerank(top_n=3),
            )

    Use:
        Arguments of `invoke` are passed to the base retriever.

        .. code-block:: python

            docs = retriever.invoke("Which region grew fastest?")
            docs = retriever.invoke("Which region grew fastest?", k=50)

    Async:
        .. code-block:: python

            docs = await retriever.ainvoke("Which region grew fastest?")

    A trace contains one retriever run, and the run of the base retriever as a child run.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    base_retriever: SerializeAsAny[RetrieverLike]
    """Retriever, or any runnable that accepts a query and returns documents."""
    base_compressor: SerializeAsAny[BaseDocumentCompressor]
    """Document compressor that filters or reranks the documents, for example `JinaLocalRerank`."""

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Return True, because the fields define the retriever completely. Each field must be serializable."""
        return True

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        **kwargs: Any,  # noqa: ANN401  # arguments of the base retriever
    ) -> list[Document]:
        documents = self.base_retriever.invoke(query, config={"callbacks": run_manager.get_child()}, **kwargs)
        if not documents:
            return []
        return list(self.base_compressor.compress_documents(documents, query, callbacks=run_manager.get_child()))

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        **kwargs: Any,  # noqa: ANN401
    ) -> list[Document]:
        documents = await self.base_retriever.ainvoke(query, config={"callbacks": run_manager.get_child()}, **kwargs)
        if not documents:
            return []
        return list(await self.base_compressor.acompress_documents(documents, query, callbacks=run_manager.get_child()))
