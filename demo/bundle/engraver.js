// Engraving: abcjs, of which the page uses one function.
export { renderAbc } from "abcjs";
