// Words into pieces: the WordPiece tokenizer of BERT, token for token what the text model was trained with.
import type { TextEncoder, Tokens } from "./manifest.ts";

/** A BERT WordPiece tokenizer: the same tokens as those that the model was trained with. */
export class Tokenizer {
  #ids: Map<string, number>;
  #about: Pick<TextEncoder, "tokenizer" | "max_tokens" | "max_characters">;
  #added: RegExp | null;

  /** `vocab` has the pieces by number, null for gaps. */
  constructor(vocab: (string | null)[], about: Pick<TextEncoder, "tokenizer" | "max_tokens" | "max_characters">) {
    this.#ids = new Map();
    vocab.forEach((piece, id) => piece !== null && this.#ids.set(piece, id));
    this.#about = about;
    const added = Object.keys(about.tokenizer.added_tokens).sort((a, b) => b.length - a.length);
    this.#added = added.length ? new RegExp(`(${added.map((one) => one.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|")})`) : null;
  }

  /** Return the ids of a text, with what comes first and last, cut at the most tokens that the model takes. */
  encode(text: string): number[] {
    const { tokenizer, max_tokens, max_characters } = this.#about;
    const cut = Array.from(text).slice(0, max_characters).join("");
    const ids: number[] = [];
    for (const piece of this.#added ? cut.split(this.#added) : [cut]) {
      if (Object.hasOwn(tokenizer.added_tokens, piece)) ids.push(tokenizer.added_tokens[piece]!);
      else for (const word of plainWords(piece, tokenizer)) ids.push(...this.#pieces(word));
    }
    return [...tokenizer.first, ...ids.slice(0, max_tokens - tokenizer.first.length - tokenizer.last.length), ...tokenizer.last];
  }

  /** Part a word into the longest pieces that are known, from its start; a word that has another is unknown as a whole. */
  #pieces(word: string): number[] {
    const { unknown, prefix, max_characters_per_word } = this.#about.tokenizer;
    const signs = Array.from(word);
    const none = [this.#ids.get(unknown)!];
    if (signs.length > max_characters_per_word) return none;
    const found: number[] = [];
    for (let from = 0; from < signs.length; ) {
      let to = signs.length;
      let id: number | undefined;
      for (; to > from; to--) {
        id = this.#ids.get((from ? prefix : "") + signs.slice(from, to).join(""));
        if (id !== undefined) break;
      }
      if (id === undefined) return none;
      found.push(id);
      from = to;
    }
    return found;
  }
}

/** Clean a text, take accents off, and part it at white space and around each punctuation mark. */
export function plainWords(text: string, about: Tokens): string[] {
  let clean = "";
  for (const sign of text) {
    if (about.clean_text) {
      if (sign === "\0" || sign === "\ufffd") continue;
      if (/^[\t\n\r\p{White_Space}]$/u.test(sign)) {
        clean += " ";
        continue;
      }
      if (/^[\p{Cc}\p{Cf}\p{Cn}\p{Co}\p{Cs}]$/u.test(sign)) continue;
    }
    clean += about.handle_chinese_chars && isChinese(sign.codePointAt(0)!) ? ` ${sign} ` : sign;
  }
  if (about.strip_accents ?? about.lowercase) clean = clean.normalize("NFD").replace(/\p{Mn}/gu, "");
  if (about.lowercase) clean = Array.from(clean, (sign) => sign.toLowerCase()).join(""); // each by itself, as there
  return clean.match(/[!-/:-@[-`{-~\p{P}]|[^\s!-/:-@[-`{-~\p{P}]+/gu) ?? [];
}

function isChinese(code: number): boolean {
  return (
    (code >= 0x4e00 && code <= 0x9fff) || (code >= 0x3400 && code <= 0x4dbf) || (code >= 0x20000 && code <= 0x2a6df) || (code >= 0x2a700 && code <= 0x2b73f) ||
    (code >= 0x2b740 && code <= 0x2b81f) || (code >= 0x2b920 && code <= 0x2ceaf) || (code >= 0xf900 && code <= 0xfaff) || (code >= 0x2f800 && code <= 0x2fa1f)
  );
}
