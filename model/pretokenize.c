/* pretokenize.c: the splitting that byte-level BPE does before it merges, and the character classes it needs.
 *
 * `tokenizers` runs the GPT-2 pattern through Oniguruma. The pattern is small enough to be written out: each word is
 * decided by the class of one or two characters, so splitting is one pass and needs no memory.
 *
 * Unicode: categories come from libutf8proc, whose version (2.8: Unicode 15.0) is older than the Unicode 16 of today's
 * Oniguruma (6.9.10) and Rust regex. since_15[] lists what Unicode 15.1 and 16 assigned, and is asked only where
 * utf8proc says "unassigned"; with it, every code point is classified as tokenizers 0.23 does on Debian sid (checked
 * over all of them: tests/tokenizer). Two versions still differ: a wheel from PyPI bundles an older Oniguruma, which
 * takes Unicode-16 letters for symbols, and a utf8proc newer than Unicode 16 knows letters that Oniguruma does not. */
#include "model/pretokenize.h"

#include <string.h>

#include <utf8proc.h>

typedef enum char_class { CLASS_SPACE, CLASS_LETTER, CLASS_NUMBER, CLASS_OTHER } char_class;

typedef struct char_range {
	uint32_t first, last;
	char kind; /* 'L'etter, 'N'umber, 'M'ark */
} char_range;

static const char_range since_15[] = {
	{0x897, 0x897, 'M'},     {0x1c89, 0x1c8a, 'L'},   {0xa7cb, 0xa7cd, 'L'},   {0xa7da, 0xa7dc, 'L'},
	{0x105c0, 0x105f3, 'L'}, {0x10d40, 0x10d49, 'N'}, {0x10d4a, 0x10d65, 'L'}, {0x10d69, 0x10d6d, 'M'},
	{0x10d6f, 0x10d85, 'L'}, {0x10ec2, 0x10ec4, 'L'}, {0x10efc, 0x10efc, 'M'}, {0x11380, 0x11389, 'L'},
	{0x1138b, 0x1138b, 'L'}, {0x1138e, 0x1138e, 'L'}, {0x11390, 0x113b5, 'L'}, {0x113b7, 0x113b7, 'L'},
	{0x113b8, 0x113c0, 'M'}, {0x113c2, 0x113c2, 'M'}, {0x113c5, 0x113c5, 'M'}, {0x113c7, 0x113ca, 'M'},
	{0x113cc, 0x113d0, 'M'}, {0x113d1, 0x113d1, 'L'}, {0x113d2, 0x113d2, 'M'}, {0x113d3, 0x113d3, 'L'},
	{0x113e1, 0x113e2, 'M'}, {0x116d0, 0x116e3, 'N'}, {0x11bc0, 0x11be0, 'L'}, {0x11bf0, 0x11bf9, 'N'},
	{0x11f5a, 0x11f5a, 'M'}, {0x13460, 0x143fa, 'L'}, {0x16100, 0x1611d, 'L'}, {0x1611e, 0x1612f, 'M'},
	{0x16130, 0x16139, 'N'}, {0x16d40, 0x16d6c, 'L'}, {0x16d70, 0x16d79, 'N'}, {0x18cff, 0x18cff, 'L'},
	{0x1ccf0, 0x1ccf9, 'N'}, {0x1e5d0, 0x1e5ed, 'L'}, {0x1e5ee, 0x1e5ef, 'M'}, {0x1e5f0, 0x1e5f0, 'L'},
	{0x1e5f1, 0x1e5fa, 'N'}, {0x2ebf0, 0x2ee5d, 'L'},
};

static char newer_kind(uint32_t c)
{
	size_t lo = 0, hi = sizeof since_15 / sizeof *since_15;
	while (lo < hi) {
		size_t mid = (lo + hi) / 2;
		if (c > since_15[mid].last)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < sizeof since_15 / sizeof *since_15 && c >= since_15[lo].first ? since_15[lo].kind : 'O';
}

/* L, N, M (mark), P (connector punctuation), O (the rest). *is_no: a number of category No, which \w excludes. */
static char char_kind(uint32_t c, bool *is_no)
{
	*is_no = false;
	switch (utf8proc_category((utf8proc_int32_t)c)) {
	case UTF8PROC_CATEGORY_LU:
	case UTF8PROC_CATEGORY_LL:
	case UTF8PROC_CATEGORY_LT:
	case UTF8PROC_CATEGORY_LM:
	case UTF8PROC_CATEGORY_LO:
		return 'L';
	case UTF8PROC_CATEGORY_NO:
		*is_no = true;
		return 'N';
	case UTF8PROC_CATEGORY_ND:
	case UTF8PROC_CATEGORY_NL:
		return 'N';
	case UTF8PROC_CATEGORY_MN:
	case UTF8PROC_CATEGORY_MC:
	case UTF8PROC_CATEGORY_ME:
		return 'M';
	case UTF8PROC_CATEGORY_PC:
		return 'P';
	case UTF8PROC_CATEGORY_CN:
		return newer_kind(c);
	default:
		return 'O';
	}
}

bool char_is_space(uint32_t c)
{
	return c == 0x20 || (c >= 0x09 && c <= 0x0d) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
	       (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

/* \w = Alphabetic + Mark + Nd + Pc + Join_Control. Alphabetic is L + Nl + marks + the circled letters, which are So. */
bool char_is_word(uint32_t c)
{
	bool is_no;
	char kind = char_kind(c, &is_no);
	if (kind != 'O')
		return !is_no;
	return c == 0x200c || c == 0x200d || (c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f149) ||
	       (c >= 0x1f150 && c <= 0x1f169) || (c >= 0x1f170 && c <= 0x1f189);
}

static char_class class_of(uint32_t c)
{
	if (c < 0x80) {
		if ((c | 0x20) >= 'a' && (c | 0x20) <= 'z')
			return CLASS_LETTER;
		if (c >= '0' && c <= '9')
			return CLASS_NUMBER;
		return char_is_space(c) ? CLASS_SPACE : CLASS_OTHER;
	}
	if (char_is_space(c))
		return CLASS_SPACE;
	bool is_no;
	char kind = char_kind(c, &is_no);
	return kind == 'L' ? CLASS_LETTER : kind == 'N' ? CLASS_NUMBER : CLASS_OTHER;
}

int utf8_sequence(const char *text, size_t len)
{
	const unsigned char *s = (const unsigned char *)text;
	unsigned char lo = 0x80, hi = 0xbf; /* the second byte's range excludes overlong forms and surrogates */
	int need;
	if (s[0] < 0x80)
		return 1;
	if (s[0] >= 0xc2 && s[0] <= 0xdf) {
		need = 1;
	} else if (s[0] >= 0xe0 && s[0] <= 0xef) {
		need = 2;
		lo = s[0] == 0xe0 ? 0xa0 : 0x80;
		hi = s[0] == 0xed ? 0x9f : 0xbf;
	} else if (s[0] >= 0xf0 && s[0] <= 0xf4) {
		need = 3;
		lo = s[0] == 0xf0 ? 0x90 : 0x80;
		hi = s[0] == 0xf4 ? 0x8f : 0xbf;
	} else {
		return -1;
	}
	for (int i = 1; i <= need; i++) {
		if ((size_t)i >= len || s[i] < lo || s[i] > hi)
			return -i;
		lo = 0x80;
		hi = 0xbf;
	}
	return need + 1;
}

size_t utf8_valid_prefix(const char *s, size_t len)
{
	size_t i = 0;
	while (i < len) {
		int n = utf8_sequence(s + i, len - i);
		if (n < 0)
			return i;
		i += (size_t)n;
	}
	return len;
}

void utf8_repair(char *s)
{
	const size_t len = strlen(s);
	for (size_t i = 0; (i += utf8_valid_prefix(s + i, len - i)) < len;)
		s[i] = '?';
}

uint32_t utf8_next(const char *text, size_t *i)
{
	const unsigned char *s = (const unsigned char *)text + *i;
	if (s[0] < 0x80) {
		*i += 1;
		return s[0];
	}
	if (s[0] < 0xe0) {
		*i += 2;
		return (s[0] & 0x1fu) << 6 | (s[1] & 0x3fu);
	}
	if (s[0] < 0xf0) {
		*i += 3;
		return (s[0] & 0x0fu) << 12 | (s[1] & 0x3fu) << 6 | (s[2] & 0x3fu);
	}
	*i += 4;
	return (s[0] & 0x07u) << 18 | (s[1] & 0x3fu) << 12 | (s[2] & 0x3fu) << 6 | (s[3] & 0x3fu);
}

uint32_t utf8_prev(const char *s, size_t *i)
{
	do
		--*i;
	while (((unsigned char)s[*i] & 0xc0) == 0x80);
	size_t start = *i;
	return utf8_next(s, &start);
}

/* Length of 's 't 're 've 'm 'll 'd at s[0..len), 0 when none. */
static size_t contraction(const char *s, size_t len)
{
	if (len < 2 || s[0] != '\'')
		return 0;
	switch (s[1]) {
	case 's':
	case 't':
	case 'm':
	case 'd':
		return 2;
	case 'r':
	case 'v':
		return len > 2 && s[2] == 'e' ? 3 : 0;
	case 'l':
		return len > 2 && s[2] == 'l' ? 3 : 0;
	default:
		return 0;
	}
}

size_t pretokenize_next(const char *s, size_t len, size_t start, bool lead_space)
{
	size_t i = start;
	if (!lead_space) {
		size_t n = contraction(s + start, len - start);
		if (n)
			return start + n;
		if (s[start] == ' ')
			i++;
	}
	if (i < len) {
		size_t end = i;
		char_class cls = class_of(utf8_next(s, &end));
		if (cls != CLASS_SPACE) {
			for (size_t next = end; next < len && class_of(utf8_next(s, &next)) == cls; end = next)
				;
			return end;
		}
	}
	/* A run of white space leaves its last character to the word behind it: \s+(?!\S), else \s+. */
	size_t end = start, last = start, count = lead_space ? 1 : 0;
	for (size_t next = end; next < len && class_of(utf8_next(s, &next)) == CLASS_SPACE; end = next) {
		last = end;
		count++;
	}
	return end == len || count == 1 ? end : last;
}

uint32_t byte_to_char(unsigned char b)
{
	if ((b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b != 0xad))
		return b;
	/* The others are numbered from 0x100 in byte order: 00-20, 7f-a0, ad. */
	return b <= 0x20 ? 0x100u + b : b <= 0xa0 ? 0x121u + (b - 0x7fu) : 0x143u;
}

int char_to_byte(uint32_t c)
{
	if ((c >= 0x21 && c <= 0x7e) || (c >= 0xa1 && c <= 0xff && c != 0xad))
		return (int)c;
	if (c >= 0x100 && c <= 0x120)
		return (int)(c - 0x100);
	if (c >= 0x121 && c <= 0x142)
		return (int)(c - 0x121 + 0x7f);
	return c == 0x143 ? 0xad : -1;
}

int byte_to_utf8(unsigned char b, char out[2])
{
	uint32_t c = byte_to_char(b);
	if (c < 0x80) {
		out[0] = (char)c;
		return 1;
	}
	out[0] = (char)(0xc0 | c >> 6);
	out[1] = (char)(0x80 | (c & 0x3f));
	return 2;
}
