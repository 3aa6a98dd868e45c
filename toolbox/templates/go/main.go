// @NAME@: a Nexus tool.  One JSON object on stdin, one JSON value on stdout; stderr is the operator's log.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

type input struct {
	Text string `json:"text"`
}

type output struct {
	Words int `json:"words"`
}

// run is the tool.  An error's text is read by the model: what is wrong, where, and how to mend it.
func run(in input) (output, error) {
	words := len(strings.Fields(in.Text))
	if words == 0 {
		return output{}, fmt.Errorf("text holds no word: give at least one word")
	}
	return output{Words: words}, nil
}

func fail(code, message string) any {
	return map[string]any{"error": map[string]string{"code": code, "message": message}}
}

func answer() any {
	var in input
	if err := json.NewDecoder(os.Stdin).Decode(&in); err != nil {
		return fail("invalid_input", "the input is not the JSON it should be: "+err.Error())
	}
	out, err := run(in)
	if err != nil {
		return fail("invalid_input", err.Error())
	}
	return out
}

func main() {
	if err := json.NewEncoder(os.Stdout).Encode(answer()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
