package mcp

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/djangobridge/djangobridge/go-runtime/internal/model"
	"github.com/djangobridge/djangobridge/go-runtime/internal/tool"
)

// refusalError is what a server answers a request with that it does not take.
type refusalError struct{ message string }

func (e *refusalError) Error() string { return e.message }

// refusalOr tells the model of a server's refusal, such as of a resource that there
// is not, which a model can mend; any other error is the machinery's.
func refusalOr(err error) (tool.Result, error) {
	if refused, found := errors.AsType[*refusalError](err); found {
		return tool.Result{Text: refused.message, Failed: true}, nil
	}
	return tool.Result{}, err
}

// collected is content of a server in the forms that a model takes.
type collected struct {
	texts  []string
	images []model.Image
}

func (c *collected) addText(text string) { c.texts = append(c.texts, text) }

// addContent adds a part of a result. What a model cannot be shown is named.
func (c *collected) addContent(content sdk.Content) {
	switch part := content.(type) {
	case *sdk.TextContent:
		c.addText(part.Text)
	case *sdk.ImageContent:
		c.images = append(c.images, model.Image{MediaType: part.MIMEType, Data: part.Data})
	case *sdk.AudioContent:
		c.addText(fmt.Sprintf("[left out: %d bytes of %s]", len(part.Data), part.MIMEType))
	case *sdk.ResourceLink:
		c.addText(fmt.Sprintf("[resource %s: %s]", part.URI, part.Name))
	case *sdk.EmbeddedResource:
		c.addContents(part.Resource)
	default:
		c.addText("[left out: content of a kind that is not known]")
	}
}

// addContents adds a resource.
func (c *collected) addContents(contents *sdk.ResourceContents) {
	switch {
	case contents == nil:
	case contents.Blob == nil:
		c.addText(contents.Text)
	case strings.HasPrefix(contents.MIMEType, "image/"):
		c.images = append(c.images, model.Image{MediaType: contents.MIMEType, Data: contents.Blob})
	default:
		c.addText(fmt.Sprintf("[left out: %d bytes of %s, %s]", len(contents.Blob), contents.MIMEType, contents.URI))
	}
}

func (c *collected) result() tool.Result {
	return tool.Result{Text: strings.Join(c.texts, "\n"), Images: c.images}
}

// resultOf is a tool's result as a model is told it.
func resultOf(result *sdk.CallToolResult) tool.Result {
	var all collected
	for _, content := range result.Content {
		all.addContent(content)
	}
	told := all.result()
	told.Failed = result.IsError
	if result.StructuredContent != nil {
		// What was read as JSON can be written as such.
		told.Structured, _ = json.Marshal(result.StructuredContent) //nolint:errchkjson // see above
	}
	if told.Failed && told.Text == "" {
		told.Text = "the tool failed and does not say why"
	}
	return told
}
