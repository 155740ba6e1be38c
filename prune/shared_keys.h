/* shared_keys.h: rows of configuration tables (base/yaml_config.h) that training and compressing have in common. T is the
 * configuration struct, with fields `adamw`, `clip_norm`, `augment`. */
#ifndef WINNOW_PRUNE_SHARED_KEYS_H
#define WINNOW_PRUNE_SHARED_KEYS_H

#include "base/yaml_config.h"

/* clang-format off */
#define OPTIMIZER_KEYS(T, beta2_, decay_) \
	CONFIG_SECTION("optimizer", "torch.optim.AdamW"), \
	CONFIG_DOUBLE(T, adamw.beta1, "optimizer.beta1", "0.9", 0, 0.9999, "decay of the first moment"), \
	CONFIG_DOUBLE(T, adamw.beta2, "optimizer.beta2", beta2_, 0, 0.999999, "decay of the second moment"), \
	CONFIG_DOUBLE(T, adamw.eps, "optimizer.eps", "1e-8", 1e-12, 1, "added to the denominator"), \
	CONFIG_DOUBLE(T, adamw.weight_decay, "optimizer.weight_decay", decay_, 0, 10, "decoupled; matrices only"), \
	CONFIG_DOUBLE(T, clip_norm, "optimizer.clip_norm", "1", 0, 1e9, "gradients longer than this are scaled down; 0: off")

#define AUGMENT_KEYS(T, crop_, ratio_, flip_, jitter_, cutout_) \
	CONFIG_SECTION("augment", "training images"), \
	CONFIG_DOUBLE(T, augment.crop_scale_min, "augment.crop_scale_min", crop_, 0.05, 1, "smallest share of the area a crop keeps"), \
	CONFIG_DOUBLE(T, augment.crop_ratio_max, "augment.crop_ratio_max", ratio_, 1, 4, "aspect of crops"), \
	CONFIG_DOUBLE(T, augment.flip, "augment.flip", flip_, 0, 1, "probability of a horizontal flip"), \
	CONFIG_DOUBLE(T, augment.brightness, "augment.brightness", jitter_, 0, 0.9, "factor 1 +- x"), \
	CONFIG_DOUBLE(T, augment.contrast, "augment.contrast", jitter_, 0, 0.9, "factor 1 +- x"), \
	CONFIG_DOUBLE(T, augment.saturation, "augment.saturation", jitter_, 0, 1, "factor 1 +- x"), \
	CONFIG_DOUBLE(T, augment.cutout, "augment.cutout", cutout_, 0, 1, "probability of a blank square"), \
	CONFIG_DOUBLE(T, augment.cutout_max, "augment.cutout_max", "0.25", 0, 0.9, "its side over the image's")
/* clang-format on */

#endif
