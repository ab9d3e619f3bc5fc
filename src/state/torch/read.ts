// PyTorch's weights: {name}.weight, bias, running_mean, running_var and num_batches_tracked of every
// batch-norm module (https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm2d.html), in
// safetensors or in what torch.save writes.

import type { Kernels } from "../../engine/kernels.js";
import { checkKeys, OptionError, StateError } from "../../errors.js";
import { torchOptions } from "../../layer/frameworks.js";
import type { BatchNormOptions } from "../../layer/options.js";
import { NO_OPTIONS } from "../../values/check.js";
import { checkLayout, LAYOUTS, type Layout } from "../../values/layout.js";
import { type Bytes, bytesOf } from "../bytes.js";
import {
  fileOf,
  fromFile,
  layerOf,
  type OnWarning,
  type StateFile,
  warningsTo,
} from "../layers.js";
import type { ModuleFacts } from "./models.js";
import { strangersOf } from "./names.js";
import { numbersOf } from "./numbers.js";
import { inFile, sourceOf } from "./source.js";

/** Options of {@link readTorch}. */
export interface TorchReadOptions {
  /**
   * Which model, for a checkpoint of `torch.save` that holds several: the key that leads to it,
   * `"state_dict"` for instance; keys within keys are joined by dots, `"ema.model"`.
   */
  key?: string;
}

/** Options of `load` and `loadAll` of {@link readTorch}. */
export interface TorchLoadOptions {
  /**
   * The module's `eps`: needed for a state_dict, which has it nowhere (PyTorch's default is 1e-5).
   * Default for a whole module that was saved: its own.
   */
  eps?: number;
  /**
   * Weight of the NEW value, or `null` for the cumulative average. Default: that of a whole module that
   * was saved, else 0.1.
   */
  momentum?: number | null;
  /** Default: that of a BatchNorm2d or 3d that was saved, else channels first, of any rank. */
  layout?: Layout;
  /** Takes what one should know about the module. Default: `console.warn`. */
  onWarning?: OnWarning;
  /** Kernels of your own. Default: one shared instance per realm. */
  kernels?: Kernels;
}

const LOAD_KEYS = ["eps", "momentum", "layout", "onWarning", "kernels"];

/**
 * The batch-norm layers of a PyTorch model: of its `state_dict`, saved by
 * `safetensors.torch.save_file` or by `torch.save` (`.pt`, `.pth`, `.bin`), of a checkpoint that nests
 * one, or of a whole module that was saved. Nothing in a file is run.
 *
 * They go by the names that `model.named_modules()` has, `"layer1.0.bn1"` for instance; `""` is a
 * file of a single module's own. What all names begin with because the model was wrapped, `"module."` of
 * DataParallel and `"_orig_mod."` of torch.compile, is left out. A module counts as batch norm if it
 * has `running_mean` and `running_var`, as `BatchNorm1d`, `2d`, `3d` and `SyncBatchNorm` have (and, in
 * a state_dict, `InstanceNorm` with `track_running_stats`). `affine=False` leaves gamma and beta out;
 * one without the other is warned about. A parameter of a pruned module is `weight_orig` times
 * `weight_mask`; `gamma` and `beta`, as Burn has them, are read too.
 *
 * A whole module has its `eps`, its `momentum` and, for `BatchNorm2d` and `3d`, its layout in the file. A
 * state_dict has none of them: `eps` is asked for. `batchesSeen` is the whole part of
 * `num_batches_tracked`, of whatever type; where there is none, as in a file from before PyTorch
 * 0.4.1, or one that is no count, `batchesSeen` is 1, and `ageKnown` false.
 *
 * Tensors are F16, BF16, F32 or F64. gamma and beta become float32, the averages float64.
 *
 * @param bytes the file; not copied, so leave it unchanged until the layers are loaded.
 * @param options which model, where the file holds several.
 * @throws ShapeError for what is no bytes; StateError for a file that is truncated, malformed or of
 * another format, which is named; OptionError for an unknown option, and where the file holds several
 * models and `key` names none of them. On loading: StateError for a parameter that is computed from others
 * (`weight_g`, `parametrizations`) or has a name that is not known.
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
  const source = sourceOf(bytesOf("bytes", bytes), options.key, false);
  const { tensors, modules, layers } = source;
  const strangers = strangersOf(
    tensors,
    layers.map((name) => inFile(source, name)),
  );
  return fileOf(layers, (name, given: TorchLoadOptions) => {
    checkKeys("options", given, LOAD_KEYS);
    const warn = warningsTo(given.onWarning);
    const full = inFile(source, name);
    const settings = settingsOf(name, given, modules.get(full), warn);
    const stranger = strangers.get(full);
    if (stranger !== undefined) {
      throw new StateError(
        stranger,
        `nothing in module "${name}" but the tensors of a batch norm`,
        "another; remove_weight_norm or remove_parametrizations makes whole what is computed",
      );
    }
    const state = numbersOf(tensors, full, warn);
    if ((state.gamma === null) !== (state.beta === null)) {
      const [has, lacks] = state.gamma === null ? ["bias", "weight"] : ["weight", "bias"];
      warn(`module "${name}": has a ${has} and no ${lacks}; so has the layer`);
    }
    return layerOf(settings, state);
  });
}

/** The options of a layer: those given, else what a module that was saved says. */
function settingsOf(
  name: string,
  given: TorchLoadOptions,
  facts: ModuleFacts | undefined,
  warn: OnWarning,
): BatchNormOptions {
  const { onWarning: _, layout, ...own } = given;
  // What the caller says is the caller's fault, and what the file says is the file's.
  const { kernels } = torchOptions(own);
  const eps = own.eps ?? facts?.eps;
  if (eps === undefined) {
    throw new OptionError(
      "eps",
      `the eps of module "${name}", since a state_dict holds tensors and eps is none of them ` +
        "(PyTorch's default is 1e-5; see print(model))",
      "none",
    );
  }
  const momentum = own.momentum === undefined ? momentumOf(name, facts, warn) : own.momentum;
  const settings = fromFile(`module "${name}"`, () =>
    torchOptions({ eps, momentum } as TorchLoadOptions),
  );
  return {
    ...settings,
    layout:
      layout === undefined ? (facts?.layout ?? "channelsFirst") : checkLayout(layout, LAYOUTS),
    ...(kernels && { kernels }),
  };
}

/** The momentum of a module that was saved; of one that moves nothing the default, with a warning. */
function momentumOf(name: string, facts: ModuleFacts | undefined, warn: OnWarning): unknown {
  const momentum = facts?.momentum;
  if (typeof momentum !== "number" || momentum < 0 || 1 - momentum !== 1) return momentum;
  warn(
    `module "${name}": has momentum ${momentum}, under which its averages never move; in train they move ` +
      "by 0.1, PyTorch's default, unless it is given { updateRunning: false }",
  );
  return undefined;
}
