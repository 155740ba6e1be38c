/* tiny_model.h: the model that tests of whole runs train: model, prompt and labels of a train configuration. */
#ifndef WINNOW_TESTS_PRUNE_TINY_MODEL_H
#define WINNOW_TESTS_PRUNE_TINY_MODEL_H

#define TINY_MODEL \
	"model:\n" \
	"  vision: {hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 64}\n" \
	"  qformer: {hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 64}\n" \
	"  text: {hidden_size: 48, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 96}\n" \
	"  image_size: 56\n" \
	"  num_query_tokens: 4\n" \
	"  vocab_size: 512\n" \
	"prompt: '内容：{text} 补充：{assist} 判定：'\n" \
	"labels:\n" \
	"  - compliant | 合规 | pass\n  - weapons | 违禁品 | block\n  - alcohol_tobacco | 烟酒违规 | block\n" \
	"  - gambling | 赌博 | block\n  - medical_claim | 医疗违规 | block\n  - false_claim | 虚假宣传 | block\n" \
	"  - mismatch | 图文不符 | review\n  - clickbait | 诱导点击 | review\n  - unreadable | 画质低劣 | review\n"

#endif
