// Reads the batch norms of PyTorch models from safetensors files and from what torch.save writes. Every
// batch-norm module has the tensors {name}.weight, {name}.bias, {name}.running_mean, {name}.running_var
// and {name}.num_batches_tracked
// (https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm2d.html).

import type { Kernels } from "../../engine/kernels.js";
import { checkKeys, OptionError, StateError } from "../../errors.js";
import { keeping, torchOptions } from "../../layer/frameworks.js";
import type { BatchNormOptions } from "../../layer/options.js";
import { NO_OPTIONS, readOptions } from "../../values/check.js";
import { checkLayout, LAYOUTS, type Layout } from "../../values/layout.js";
import type { Bytes } from "../bytes.js";
import {
  fileOf,
  fromFile,
  LOAD_KEYS,
  layerOf,
  type OnWarning,
  type StateFile,
  warningsTo,
} from "../layers.js";
import { isOwn } from "../own.js";
import type { ModuleFacts } from "./models.js";
import { strangersOf } from "./names.js";
import { numbersOf } from "./numbers.js";
import { inFile, type Source, sourceOf } from "./source.js";

/** Options of {@link readTorch}. */
export interface TorchReadOptions {
  /**
   * The key that leads to the model, for a checkpoint of `torch.save` that holds several:
   * `"state_dict"` for instance. Keys within keys are joined by dots: `"ema.model"`.
   */
  key?: string;
}

/** Options of `load` and `loadAll` of {@link readTorch}. */
export interface TorchLoadOptions {
  /**
   * The module's `eps`. It must be given for a state_dict, which does not contain it (PyTorch's default
   * is 1e-5). Where a whole module was saved, the default is the `eps` of that module.
   */
  eps?: number;
  /**
   * Weight of the NEW value, or `null` for the cumulative average. Default: the momentum of the module
   * where a whole module was saved, else 0.1. `train` needs one if that of the module is 0.
   */
  momentum?: number | null;
  /**
   * Default: `"NCHW"` or `"NCDHW"` where a whole BatchNorm2d or BatchNorm3d was saved, else
   * `"channelsFirst"`, for inputs of any rank.
   */
  layout?: Layout;
  /** Is called with what you should know about the module. Default: `console.warn`. */
  onWarning?: OnWarning;
  /** Kernels of your own. Default: one shared instance per realm. */
  kernels?: Kernels;
}

/**
 * Reads the batch-norm layers of a PyTorch model. The file may hold the model's `state_dict`, saved by
 * `safetensors.torch.save_file` or by `torch.save` (`.pt`, `.pth`, `.bin`), a checkpoint that has a
 * `state_dict` under one of its keys, or a whole module. Nothing in a file is run.
 *
 * Layers have the names that `model.named_modules()` gives them, `"layer1.0.bn1"` for instance. If the file
 * is that of a single batch-norm module, the layer's name is `""`. The prefix that all names share because
 * the model was wrapped is left out: `"module."` of DataParallel and `"_orig_mod."` of torch.compile.
 *
 * A module counts as batch norm if it has `running_mean` and `running_var`, as `BatchNorm1d`,
 * `BatchNorm2d`, `BatchNorm3d` and `SyncBatchNorm` have. In a state_dict an `InstanceNorm` with
 * `track_running_stats` has them too, and is taken for a batch norm. A module with `affine=False` gives a
 * layer without gamma and beta; a module that has only one of the two causes a warning. The weight of a
 * pruned module is `weight_orig` times `weight_mask`, and its bias likewise. The names `gamma` and `beta`,
 * which Burn uses, are read too.
 *
 * The file of a whole module contains its `eps`, its `momentum` and, for `BatchNorm2d` and `BatchNorm3d`,
 * its layout. A state_dict contains none of them, so `load` requires `eps`. `batchesSeen` is the whole
 * part of `num_batches_tracked`, whatever its type. If the file has no such tensor, as before PyTorch
 * 0.4.1, or if the tensor holds no count, `batchesSeen` is 1 and `ageKnown` is false.
 *
 * Tensors may be F16, BF16, F32 or F64. gamma and beta become float32, the averages float64. A file of `save` is read as
 * any other, with a warning: `load(bytes)` also reads the options in it, the activation for instance.
 *
 * @param bytes the file; not copied, so leave it unchanged until the layers are loaded.
 * @param options which model to read, where the file holds several.
 * @throws ShapeError if `bytes` is not bytes; StateError for a file that is truncated, malformed or of
 * another format, which the message names; OptionError for an unknown option, and if the file holds several
 * models and `key` names none of them. `load` throws StateError for a module with a parameter that is
 * computed from others (`weight_g`, `parametrizations`) or that has an unknown name.
 *
 * @example
 * const file = readTorch(await (await fetch("resnet18.pth")).arrayBuffer());
 * console.log(file.layers); // ["bn1", "layer1.0.bn1", …]
 * const { bn1 } = file.loadAll({ eps: 1e-5, layout: "NCHW" });
 */
export function readTorch(
  bytes: Bytes,
  options: TorchReadOptions = NO_OPTIONS,
): StateFile<TorchLoadOptions> {
  checkKeys("options", options, ["key"]);
  return layersIn(sourceOf("bytes", bytes, options.key, false));
}

/** The layers of a file that has been read. */
export function layersIn(source: Source): StateFile<TorchLoadOptions> {
  const { tensors, modules, layers } = source;
  const isOurs = isOwn(source);
  const strangers = strangersOf(
    tensors,
    layers.map((name) => inFile(source, name)),
  );
  return fileOf(layers, [source.file], (name, options: TorchLoadOptions) => {
    const given = readOptions(options, ["eps", ...LOAD_KEYS]);
    const warn = warningsTo(given.onWarning);
    const full = inFile(source, name);
    const settings = settingsOf(name, given, modules.get(full));
    const stranger = strangers.get(full);
    if (stranger !== undefined) {
      throw new StateError(
        stranger,
        "a tensor that batch norms have",
        "another; if weights are computed from it, first call remove_weight_norm (of weight_g) or " +
          "remove_parametrizations in Python",
      );
    }
    if (isOurs) {
      warn(`module "${name}": was written by save with all its options, which load(bytes) reads`);
    }
    const state = numbersOf(tensors, full, warn);
    if ((state.gamma === null) !== (state.beta === null)) {
      const [has, lacks] = state.gamma === null ? ["bias", "weight"] : ["weight", "bias"];
      warn(`module "${name}": has a ${has} and no ${lacks}; so has the layer`);
    }
    return layerOf(settings, state);
  });
}

/** The options of a layer: those that are given, and for the others what the saved module says. */
function settingsOf(
  name: string,
  given: TorchLoadOptions,
  facts: ModuleFacts | undefined,
): BatchNormOptions {
  const { onWarning: _, layout, ...own } = given;
  // Checked first and apart: a bad option is an OptionError, a bad value in the file a StateError.
  torchOptions(own);
  const eps = own.eps ?? facts?.eps;
  if (eps === undefined) {
    throw new OptionError(
      "eps",
      `the eps of module "${name}", which a state_dict does not hold (PyTorch's default is 1e-5)`,
      "none",
    );
  }
  const momentum = own.momentum === undefined ? facts?.momentum : own.momentum;
  const settings = fromFile(`module "${name}"`, () =>
    keeping(torchOptions, { ...own, eps, momentum } as TorchLoadOptions),
  );
  return {
    ...settings,
    layout:
      layout === undefined ? (facts?.layout ?? "channelsFirst") : checkLayout(layout, LAYOUTS),
  };
}
