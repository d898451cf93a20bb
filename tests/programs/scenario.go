// Create, step, seek, a large term and an index, by Go's net/http.
package main

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

var service, n = os.Args[1], os.Args[2]

func ask(method, path, body string, headers ...string) (*http.Response, string) {
	for {
		request, _ := http.NewRequest(method, service+path, strings.NewReader(body))
		for i := 0; i < len(headers); i += 2 {
			request.Header.Set(headers[i], headers[i+1])
		}
		if reply, err := http.DefaultClient.Do(request); err == nil {
			text, err := io.ReadAll(reply.Body)
			if err == nil && reply.StatusCode != 202 {
				return reply, string(text)
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func member[T any](text, name string) T {
	var document map[string]json.RawMessage
	var found T
	json.Unmarshal([]byte(text), &document)
	json.Unmarshal(document[name], &found)
	return found
}

func show(what string, reply *http.Response, text string) {
	fmt.Println(what, reply.StatusCode, member[string](text, "position"))
}

func main() {
	id := make([]byte, 16)
	rand.Read(id)
	sequence := fmt.Sprintf("/api1/sequences/%x", id)
	reply, text := ask("PUT", sequence, "", "If-None-Match", "*")
	show("create", reply, text)
	reply, _ = ask("GET", sequence, "")
	reply, text = ask("POST", sequence+"/next", "", "If-Match", reply.Header.Get("ETag"))
	show("step", reply, text)
	reply, text = ask("PUT", sequence, `{"position":"100"}`, "Content-Type", "application/json")
	show("seek", reply, text)
	_, term := ask("GET", "/api1/terms/"+n, "", "Accept", "text/plain")
	fmt.Println("term", len(term), term[:20], term[len(term)-20:])
	_, text = ask("GET", sequence, "")
	value := member[string](text, "value")
	_, text = ask("POST", "/api1/index", value, "Content-Type", "text/plain")
	fmt.Println("index", strings.Join(member[[]string](text, "n"), ","))
}
