# /// script
# dependencies = ["tokenizers"]
# [tool.strongroom]
# memory = "128M"
# threads = 8
# ///
"""Train a small tokenizer on Rust's threads, and use it."""

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
text = [f"the patient of ward {n} was seen on day {n % 28}" for n in range(500)]
tokenizer.train_from_iterator(
    text, trainers.BpeTrainer(vocab_size=120, special_tokens=["[UNK]"], show_progress=False)
)
print(tokenizer.get_vocab_size(), tokenizer.encode("the patient was seen").tokens)
again = Tokenizer.from_str(tokenizer.to_str())
print([len(one.ids) for one in again.encode_batch(text[:10])])
