"""The runner of a model that sees: a decoder behind an embedding table, and a vision encoder."""

import numpy as np
import numpy.typing as npt

from provider_onnxruntime.image_processor import read_processor
from provider_onnxruntime.runner import OnnxRuntimeRunner
from provider_onnxruntime.session import open_session
from provider_onnxruntime.settings import OnnxRuntimeSettings
from provider_onnxruntime.token_embedder import TokenEmbedder
from provider_onnxruntime.vision_folder import VisionFiles


class VisionRunner(OnnxRuntimeRunner):
    """A runner that is an `ImageEncoder`, too.

    Args:
        files: Checked.
        settings: How to run it.
        max_num_seqs: Slots.
        max_model_len: Positions of a slot.
        prefix_cache_mib: Memory for blocks of prompts.

    Raises:
        ConfigurationError: A session cannot be made as asked.
    """

    def __init__(
        self,
        files: VisionFiles,
        settings: OnnxRuntimeSettings,
        *,
        max_num_seqs: int,
        max_model_len: int,
        prefix_cache_mib: int = 0,
    ) -> None:
        self.image_token_id = files.image_token_id
        self._process = read_processor(files.folder)
        self._encoders = [open_session(files.encoder, settings)]
        blank = np.zeros((*self._process.output_size, 3), np.uint8)
        self._num_image_tokens = len(self.encode_image(blank))
        super().__init__(
            files.decoder,
            settings.model_copy(update={"cache": False}),  # its probe speaks in ids
            max_num_seqs=max_num_seqs,
            max_model_len=max_model_len,
            prefix_cache_mib=prefix_cache_mib,
            embedder=TokenEmbedder(open_session(files.embedder, settings)),
        )

    def num_image_tokens(self, height: int, width: int) -> int:  # noqa: ARG002 - of any size
        """As many for every picture: all are brought to one size."""
        return self._num_image_tokens

    def encode_image(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Look at a picture: float32 `[k, size]`."""
        [session] = self._encoders
        [feature, *_] = session.run(None, {session.get_inputs()[0].name: self._process(pixels)})
        return np.asarray(feature, np.float32).reshape(-1, feature.shape[-1])

    def close(self) -> None:
        """Give the memory back. Idempotent."""
        self._encoders.clear()
        super().close()
